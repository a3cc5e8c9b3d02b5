-- ARGV: our name, how many of our threads are idle and could walk or copy ('-': we do neither), how much work we have
-- that could be given away, a random number in [0, 1), whether we are a daemon ('1') and so are told of the end of jobs.
-- Returns how many bundles we are to give away, how many processes there are, the control fields and their values, and
-- for each running job: id, state, wanted, queued, running.
-- KEYS[1]: treeferry:
local P = KEYS[1]
local sums, idle = P .. 'sums', P .. 'idle'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function read(name, value)
  local n, w, at = string.match(value or '', '^([%d-]+):(%d+):(%d+)$')
  if not at then return 0, 0, nil end
  return tonumber(n) or 0, tonumber(w), tonumber(at)
end
local my_idle, my_weight = tonumber(ARGV[2]) or 0, tonumber(ARGV[3])
local sum = redis.call('HMGET', sums, 'idle', 'weight', 'nodes', 'at')
local mine = ARGV[2] .. ':' .. ARGV[3] .. ':' .. string.format('%d', now)
local old_idle, old_weight, old_at = read(ARGV[1], redis.call('HGET', idle, ARGV[1]))
redis.call('HSET', idle, ARGV[1], mine)
local all_idle, weight, nodes = tonumber(sum[1] or 0), tonumber(sum[2] or 0), tonumber(sum[3] or 0)
if old_at and sum[4] and now - tonumber(sum[4]) < 1000 and now >= tonumber(sum[4]) then
  all_idle, weight = all_idle + my_idle - old_idle, weight + my_weight - old_weight
  redis.call('HSET', sums, 'idle', all_idle, 'weight', weight)
else
  -- once a second, and when a process comes, everything is added up again, without those who are silent
  all_idle, weight, nodes = 0, 0, 0
  local all = redis.call('HGETALL', idle)
  for i = 1, #all, 2 do
    local n, w, at = read(all[i], all[i + 1])
    if not at or now - at > 3000 then
      redis.call('HDEL', idle, all[i])
    else
      all_idle, weight, nodes = all_idle + n, weight + w, nodes + 1
    end
  end
  redis.call('HSET', sums, 'idle', all_idle, 'weight', weight, 'nodes', nodes, 'at', string.format('%d', now))
end

local jobs, waiting = {}, 0
for _, job in ipairs(redis.call('SMEMBERS', P .. 'running')) do
  local p = P .. '{' .. job .. '}:'
  local f = redis.call('HMGET', p .. 'job', 'state', 'wanted', 'links_queued')
  local state, wanted = f[1] or 'gone', f[2] or 'run'
  local begun = redis.call('HLEN', p .. 'begun')
  local queued = redis.call('HLEN', p .. 'open') - begun - (tonumber(f[3] or '0') or 0)
  if state ~= 'running' then
    -- who takes it out of the set tells those who watch; a command may be gone before it has
    if ARGV[5] == '1' then redis.call('SREM', P .. 'running', job) end
  elseif wanted == 'run' then
    waiting = waiting + math.max(0, queued)
  end
  for _, x in ipairs({job, state, wanted, math.max(0, queued), begun}) do jobs[#jobs + 1] = x end
end

-- everybody with work gives his share of what is needed: one bundle for each idle thread, and in large clusters a few
-- more, so that who ends finds one at once
local give = 0
if my_weight > 0 and weight > 0 then
  local need = math.max(0, all_idle + math.floor(nodes / 8) - waiting)
  give = math.floor(need * math.min(1, my_weight / weight) + tonumber(ARGV[4]))
end
return {give, nodes, redis.call('HGETALL', P .. 'control'), jobs}
