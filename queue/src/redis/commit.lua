-- ARGV: task, token of its beginning, number of this commit since, now (ms), the commit (msgpack; see `pack`), the name
-- of the node that commits. Returns
-- {status, outstanding, id, lane, ...}. The number tells a commit that is made again, its answer having been lost, and
-- one before which the ledger has lost another.
local id, token, number, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local c = cmsgpack.unpack(ARGV[5])
local made = {}
local at = redis.call('HGET', begun, id)
if at == token .. ':' .. number then return {'done', outstanding()} end
if at ~= token .. ':' .. (number - 1) or redis.call('HEXISTS', open, id) == 0 then return {'gone', outstanding()} end
-- Whoever was thought to lead a group must still be the one, what was followed must still lead, and inodes must be whose
-- they were thought to be: another may lead by now, and a Redis that was killed may have forgotten what it has said
for _, l in ipairs(c.led) do
  local g = group(l[1])
  if not g or g.p ~= l[2] then return {'fenced', outstanding()} end
end
for _, f in ipairs(c.followed) do
  local g = group(f[1])
  if not g or g.s ~= 'R' or g.p ~= f[2] or g.t ~= f[3] then return {'fenced', outstanding()} end
end
for _, o in ipairs(c.owned) do
  if redis.call('HGET', targets, o[2]) ~= o[1] then return {'fenced', outstanding()} end
end
for _, j in ipairs(c.joins) do
  if not j[2] and redis.call('HEXISTS', P .. 'joins:n', j[1]) == 0 then
    close(now, 'aborted', 'the ledger has no join ' .. j[1] .. ': please report this as a bug')
    return {'aborted', outstanding()}
  end
end

for _, g in ipairs(c.groups) do
  local key, what = g[1], g[2]
  local s = group(key)
  if s then
    if what == 'R' then
      s.s, s.p, s.t, s.l = 'R', g[3], g[4], g[5]
    elseif what == 'A' then
      s.s = 'A'
    else
      s.c = s.c + g[3]
      s.l = s.l + g[4]
    end
    keep(key, s)
  end
end
for _, p in ipairs(c.parked) do
  local s = group(p[1])
  if s and (s.s == 'C' or s.s == 'W') then
    redis.call('RPUSH', P .. 'parked:' .. p[1], p[2])
    redis.call('INCR', P .. 'parked')
    redis.call('SADD', waiting, p[1])
  else
    add_open(now, 'lP' .. netstring(p[2]), made)
  end
end
for _, key in ipairs(c.released) do release(now, key, 1e9, made) end
for _, g in ipairs(c.groups) do
  local key = g[1]
  local s = group(key)
  if s and s.c >= s.n and s.n > 0 and redis.call('EXISTS', P .. 'parked:' .. key) == 0 then
    redis.call('HDEL', groups, key)
    if s.l <= s.n then
      for _, t in ipairs(s.o) do redis.call('HDEL', targets, t) end
    end
  end
end

for _, b in ipairs(c.children) do add_open(now, b, made) end

for _, j in ipairs(c.joins) do
  -- also by 0: what was opened and emptied in one step is still to be released
  redis.call('HINCRBY', P .. 'joins:n', j[1], j[3])
  if j[4] ~= 0 then redis.call('HINCRBY', P .. 'joins:t', j[1], j[4]) end
  if j[5] ~= '' then redis.call('HSET', P .. 'joins:f', j[1], j[5]) end
end
for _, j in ipairs(c.joins) do
  if tonumber(redis.call('HGET', P .. 'joins:n', j[1])) == 0 then
    local f = redis.call('HGET', P .. 'joins:f', j[1])
    local t = redis.call('HGET', P .. 'joins:t', j[1]) or '0'
    redis.call('HDEL', P .. 'joins:n', j[1])
    redis.call('HDEL', P .. 'joins:t', j[1])
    redis.call('HDEL', P .. 'joins:f', j[1])
    if f then add_open(now, string.sub(f, 1, 1) .. 'F' .. t .. ':' .. string.sub(f, 2), made) end
  end
end

local mine = P .. 'node:' .. ARGV[6]
for _, n in ipairs(c.counters) do
  redis.call('HINCRBY', P .. 'counters', n[1], n[2])
  redis.call('HINCRBY', mine, n[1], n[2])
end
for _, n in ipairs(c.classes) do redis.call('HINCRBY', mine, 'errno:' .. n[1], n[2]) end
if #c.counters > 0 then redis.call('SADD', P .. 'nodes', ARGV[6]) end
for _, s in ipairs(c.sizes) do
  redis.call('HINCRBY', P .. 'sizes', s[1] .. ':files', s[2])
  redis.call('HINCRBY', P .. 'sizes', s[1] .. ':bytes', s[3])
end
for _, r in ipairs(c.records) do record(r[1], r[2], r[3]) end
for _, f in ipairs(c.failures) do redis.call('RPUSH', P .. 'failures', f) end
for _, f in ipairs(c.changes) do redis.call('RPUSH', P .. 'changes', f) end
-- whoever wanted to read them may be gone
if #c.changes > 0 then redis.call('LTRIM', P .. 'changes', -1000000, -1) end
for _, n in ipairs(c.notices) do redis.call('SADD', P .. 'notices', n) end

redis.call('HDEL', P .. 'tries', id)
if c.rest ~= '' then
  redis.call('HSET', open, id, c.rest)
  redis.call('HSET', begun, id, token .. ':' .. number)
else
  redis.call('HDEL', open, id)
  redis.call('HDEL', begun, id)
  redis.call('ZREM', outbox, id)
end
settle(now, made)
finish(now)
local r = {'done', outstanding()}
for _, m in ipairs(made) do r[#r + 1] = m end
return r
