-- ARGV: our name, how many of our threads are idle and could walk or copy ('-': we do neither), now (ms). Returns how
-- many idle threads of all workers nobody has work for yet, how many are idle, how many processes there are, the
-- control fields and their values, and for each running job: id, state, wanted, queued, running. KEYS[1]: treeferry:
local P = KEYS[1]
local now = tonumber(ARGV[3])
redis.call('HSET', P .. 'idle', ARGV[1], ARGV[2] .. ':' .. ARGV[3])
local idle, nodes = 0, 0
local all = redis.call('HGETALL', P .. 'idle')
for i = 1, #all, 2 do
  local n, at = string.match(all[i + 1], '^([%d-]+):(%d+)$')
  if not at or now - tonumber(at) > 15000 then
    redis.call('HDEL', P .. 'idle', all[i])
  elseif now - tonumber(at) < 3000 then
    idle = idle + (tonumber(n) or 0)
    nodes = nodes + 1
  end
end
local jobs, waiting = {}, 0
for _, job in ipairs(redis.call('SMEMBERS', P .. 'running')) do
  local p = P .. '{' .. job .. '}:'
  local f = redis.call('HMGET', p .. 'job', 'state', 'wanted', 'links_queued')
  local state, wanted = f[1] or 'gone', f[2] or 'run'
  local begun = redis.call('HLEN', p .. 'begun')
  local queued = redis.call('HLEN', p .. 'open') - begun - (tonumber(f[3] or '0') or 0)
  if state ~= 'running' then
    redis.call('SREM', P .. 'running', job)
  elseif wanted == 'run' then
    waiting = waiting + math.max(0, queued)
  end
  for _, x in ipairs({job, state, wanted, math.max(0, queued), begun}) do jobs[#jobs + 1] = x end
end
return {math.max(0, idle - waiting), idle, nodes, redis.call('HGETALL', P .. 'control'), jobs}
