-- ARGV: now (ms), how many fields, each with its value, then the first tasks, each with the byte of its lane before it.
-- Asked again, the answer having been lost, it does nothing: the tasks may be done by now. Returns {id, lane, ...}.
local made, at = {}, 3
if redis.call('HEXISTS', job, 'next') == 1 then return made end
for _ = 1, tonumber(ARGV[2]) do
  redis.call('HSET', job, ARGV[at], ARGV[at + 1])
  at = at + 2
end
redis.call('HSET', job, 'next', 0, 'state', 'running')
for i = at, #ARGV do add_open(ARGV[1], ARGV[i], made) end
return made
