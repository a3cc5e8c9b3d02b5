-- ARGV: our name, how many of our threads are idle, now (ms). Returns how many idle threads of all workers nobody has
-- work for yet, and job, state, wanted of every running job. KEYS[1]: treeferry:
local P = KEYS[1]
redis.call('HSET', P .. 'idle', ARGV[1], ARGV[2] .. ':' .. ARGV[3])
local idle = 0
local all = redis.call('HGETALL', P .. 'idle')
for i = 1, #all, 2 do
  local n, at = string.match(all[i + 1], '^(%d+):(%d+)$')
  if not at or tonumber(ARGV[3]) - tonumber(at) > 15000 then
    redis.call('HDEL', P .. 'idle', all[i])
  elseif tonumber(ARGV[3]) - tonumber(at) < 3000 then
    idle = idle + tonumber(n)
  end
end
local out = {0}
local queued = 0
for _, job in ipairs(redis.call('SMEMBERS', P .. 'running')) do
  local p = P .. '{' .. job .. '}:'
  local state = redis.call('HGET', p .. 'job', 'state') or 'gone'
  if state ~= 'running' then
    redis.call('SREM', P .. 'running', job)
  else
    queued = queued + redis.call('HLEN', p .. 'open') - redis.call('HLEN', p .. 'begun')
  end
  out[#out + 1] = job
  out[#out + 1] = state
  out[#out + 1] = redis.call('HGET', p .. 'job', 'wanted') or 'run'
end
out[1] = math.max(0, idle - queued)
return out
