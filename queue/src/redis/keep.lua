-- KEYS[1]: who keeps a mirror; ARGV: who asks, for how long (ms). Returns who keeps it if that is somebody else.
local who = redis.call('GET', KEYS[1])
if who and who ~= ARGV[1] then return who end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
