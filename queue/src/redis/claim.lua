-- ARGV: group, nlink, path, wavers, abandoned (the asker knows that its leader has failed). What a name of a group is
-- to do; see groups.rs, of which this is the twin.
local key, nlink, path = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local g = group(key) or {s = 'A', p = '', t = '', l = 0, n = nlink, c = 0, o = {}}
-- links may be made while the job runs
if nlink > g.n then
  g.n = nlink
  if g.s ~= 'A' then keep(key, g) end
end
if ARGV[5] == '1' and g.s ~= 'R' then g.s = 'A' end
if g.s == 'R' and g.p ~= path then return {'follow', g.p, g.t, g.l} end
if g.s == 'C' and g.p ~= path then return {'wait'} end
local waits = redis.call('LLEN', P .. 'parked:' .. key)
if (g.s == 'A' or g.s == 'W') and ARGV[4] == '1' and waits + g.c + 1 < g.n
  and tonumber(redis.call('GET', P .. 'parked') or '0') < 100000 then
  g.s = 'W'
  keep(key, g)
  return {'wait'}
end
g.s, g.p = 'C', path
keep(key, g)
return {'lead'}
