-- ARGV: length of a step of time (ms), names of counters. What each node has counted in this step, and in those before in
-- which nobody asked: {now (ms), node, number for each name ..., node, ...}. Whoever asks again within a step is told
-- the sum, which is to replace what was told before; so nothing is told twice or never, whoever asks.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local told, step = P .. 'told', string.format('%d', math.floor(now / tonumber(ARGV[1])))
local r = {string.format('%d', now)}
if redis.call('EXISTS', job) == 0 then return r end
local again = redis.call('HGET', told, 'step') == step
redis.call('HSET', told, 'step', step)
for _, n in ipairs(redis.call('SMEMBERS', P .. 'nodes')) do
  r[#r + 1] = n
  for i = 2, #ARGV do
    local field = n .. ':' .. ARGV[i]
    local all = redis.call('HGET', P .. 'node:' .. n, ARGV[i]) or '0'
    if not again then redis.call('HSET', told, field .. ':before', redis.call('HGET', told, field) or '0') end
    redis.call('HSET', told, field, all)
    r[#r + 1] = string.format('%d', tonumber(all) - tonumber(redis.call('HGET', told, field .. ':before') or '0'))
  end
end
-- of a job that is over it is kept no longer than the rest of it
local left = redis.call('TTL', job)
if left > 0 then redis.call('EXPIRE', told, left) end
return r
