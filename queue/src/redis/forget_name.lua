-- KEYS: names of a file, two generations of single names, marks, files of names; ARGV: the file, the name.
redis.call('SREM', KEYS[1], ARGV[2])
for i = 2, 3 do
  if redis.call('HGET', KEYS[i], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[i], ARGV[1]) end
end
-- it was renamed, perhaps; or the number is another file's by now
redis.call('HDEL', KEYS[4], ARGV[1])
if redis.call('HGET', KEYS[5], ARGV[2]) == ARGV[1] then redis.call('HDEL', KEYS[5], ARGV[2]) end
