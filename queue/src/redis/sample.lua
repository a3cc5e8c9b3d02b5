-- ARGV: now (ms), how far apart samples are at first (ms). Notes how far a running job has come, if it is time for it.
if redis.call('HGET', job, 'state') ~= 'running' then return 0 end
local last = tonumber(redis.call('HGET', job, 'sampled') or '0')
local every = tonumber(redis.call('HGET', job, 'sample_every') or ARGV[2])
-- a little too early is in time: at the next look it would be late. A clock that was set back does not stop it for ever
if math.abs(tonumber(ARGV[1]) - last) < every * 0.9 then return 0 end
sample(ARGV[1])
if redis.call('LLEN', P .. 'history') < 1000 then
  redis.call('HSETNX', job, 'sample_every', ARGV[2])
else
  -- each second one goes, and from now on they are taken half as often
  local all = redis.call('LRANGE', P .. 'history', 0, -1)
  redis.call('DEL', P .. 'history')
  for i = 2, #all, 2 do redis.call('RPUSH', P .. 'history', all[i]) end
  redis.call('HSET', job, 'sample_every', string.format('%d', every * 2))
end
return 1
