-- The ledger of one job. KEYS[1] is its prefix, treeferry:{JOB}: -- everything else is found below it, in one hash
-- slot. Every script is one atomic step (Redis runs one script at a time) and may be repeated without harm.
--
--   job        hash: what was asked for, state, wanted (run, pause), the number of the next task, links_queued (tasks
--              for the hardlinker that nobody has begun)
--   open       hash: task -> lane, kind and body; a task is here until it is done
--   begun      hash: task -> token of the last one to begin it, who owns it, and how many commits of it were made since
--   tries      hash: task -> how often it was begun since something of it was last done
--   outbox     sorted set: tasks that the broker has not confirmed yet, by time (ms); later
--              than any: it waits for its job to be resumed, or its message was given up and it is being worked on
--   joins:n :t :f   hashes: join -> count, tally, what it releases
--   groups     hash: hard-link group -> state (cmsgpack)
--   targets    hash: inode of the target -> the group that has taken it
--   parked:G   list: what waits for the first copy of group G;  parked: how many there are over all groups
--   waiting    set: groups for which something waits
--   makers     set: processes that work for the job, as temporary names have them;  deletions: how many were allowed
--   counters   hash;  failures, changes  lists;  notices  set
--   nodes      set: names of nodes that have committed something;  node:N  hash: what node N has committed of the
--              counters, and its failures by class (errno:CLASS)
--   told       hash: what of these was told as increments: see told.lua
--   sizes      hash: CLASS:files, CLASS:bytes -> how many (core/src/sizes.rs)
--   largest_files, slowest_files, largest_dirs, longest_tasks  sorted sets of the best 20: note, colon and path, by value
--   history    list: what was counted at some moments (core/src/history.rs)
--   left       hash: what was in open when the job was stopped before its end
local P = KEYS[1]
local job, open, begun, outbox = P .. 'job', P .. 'open', P .. 'begun', P .. 'outbox'
local groups, targets, waiting = P .. 'groups', P .. 'targets', P .. 'waiting'

local function add_open(now, body, made)
  local id = tostring(redis.call('HINCRBY', job, 'next', 1))
  redis.call('HSET', open, id, body)
  redis.call('ZADD', outbox, now, id)
  if string.sub(body, 1, 1) == 'l' then redis.call('HINCRBY', job, 'links_queued', 1) end
  made[#made + 1] = id
  made[#made + 1] = string.sub(body, 1, 1)
end

local function group(key)
  local s = redis.call('HGET', groups, key)
  if s then return cmsgpack.unpack(s) end
end

local function keep(key, g)
  redis.call('HSET', groups, key, cmsgpack.pack(g))
end

local function netstring(s) return tostring(#s) .. ':' .. s end

-- up to 256 tasks that waited for a group become one
local function release(now, key, most, made)
  local list = P .. 'parked:' .. key
  local body, n, total = {}, 0, 0
  while total < most do
    local t = redis.call('LPOP', list)
    if not t then break end
    n, total = n + 1, total + 1
    body[n] = netstring(t)
    if n == 256 then
      add_open(now, 'lP' .. table.concat(body), made)
      body, n = {}, 0
    end
  end
  if n > 0 then add_open(now, 'lP' .. table.concat(body), made) end
  if total > 0 then redis.call('DECRBY', P .. 'parked', total) end
  if redis.call('EXISTS', list) == 0 then redis.call('SREM', waiting, key) end
end

-- there is nothing else to do: one of each group that still waits is to lead
local function settle(now, made)
  if redis.call('HLEN', open) > 0 then return end
  for _, key in ipairs(redis.call('SMEMBERS', waiting)) do
    local g = group(key)
    if g then
      g.s = 'A'
      keep(key, g)
    end
    release(now, key, 1, made)
  end
end

local function outstanding()
  return redis.call('HLEN', open) + tonumber(redis.call('GET', P .. 'parked') or '0')
end

-- what stands out, if it is one of the best
local function record(kind, value, member)
  local before = redis.call('ZSCORE', P .. kind, member)
  if before and tonumber(before) >= value then return end
  redis.call('ZADD', P .. kind, value, member)
  redis.call('ZREMRANGEBYRANK', P .. kind, 0, -21)
end

local SAMPLED = {'dirs', 'files', 'bytes', 'copied_files', 'copied_bytes', 'unchanged_files', 'linked', 'deleted',
  'failures'}

local function sample(now)
  local values = redis.call('HMGET', P .. 'counters', unpack(SAMPLED))
  local text = {'at_ms=' .. now, 'outstanding=' .. outstanding()}
  for i, name in ipairs(SAMPLED) do
    if values[i] then text[#text + 1] = name .. '=' .. values[i] end
  end
  redis.call('RPUSH', P .. 'history', table.concat(text, ' '))
  redis.call('HSET', job, 'sampled', now)
end

-- what tells of the job stays for so long (s)
local function stay(seconds)
  for _, k in ipairs({'job', 'counters', 'failures', 'changes', 'notices', 'nodes', 'told', 'sizes', 'largest_files',
    'slowest_files', 'largest_dirs', 'longest_tasks', 'history', 'left'}) do
    redis.call('EXPIRE', P .. k, seconds)
  end
  for _, n in ipairs(redis.call('SMEMBERS', P .. 'nodes')) do redis.call('EXPIRE', P .. 'node:' .. n, seconds) end
end

-- ends the job: what served the work goes, what tells of it stays for 30 days
local function close(now, state, why)
  sample(now)
  if state ~= 'done' and state ~= 'failed' and redis.call('EXISTS', open) == 1 then
    redis.call('RENAME', open, P .. 'left')
  end
  redis.call('HSET', job, 'state', state, 'ended', now, 'why', why)
  for _, key in ipairs(redis.call('SMEMBERS', waiting)) do redis.call('UNLINK', P .. 'parked:' .. key) end
  for _, k in ipairs({'open', 'begun', 'tries', 'outbox', 'joins:n', 'joins:t', 'joins:f', 'groups', 'targets',
    'waiting', 'parked', 'makers', 'deletions'}) do redis.call('UNLINK', P .. k) end
  stay(30 * 24 * 3600)
end

local function finish(now)
  if outstanding() == 0 and redis.call('HGET', job, 'state') == 'running' then
    local failed = tonumber(redis.call('HGET', P .. 'counters', 'failures') or '0') > 0
    close(now, failed and 'failed' or 'done', '')
  end
end
