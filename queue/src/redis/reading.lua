-- ARGV: names of nodes; none: all of the job. Returns {now (ms), state, outstanding, node, its hash, node, its hash ...}:
-- all as of one instant by this clock, so that what is read later is never less.
local time = redis.call('TIME')
local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
local r = {now, redis.call('HGET', job, 'state') or 'gone', outstanding()}
local names = ARGV
if #names == 0 then names = redis.call('SMEMBERS', P .. 'nodes') end
for _, n in ipairs(names) do
  r[#r + 1] = n
  r[#r + 1] = redis.call('HGETALL', P .. 'node:' .. n)
end
return r
