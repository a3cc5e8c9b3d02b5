-- ARGV: group, inode of the target, the path that asks as leader ('': as none), its task, token and number of its last
-- commit. 1: the group has taken the inode; 0: another has; -1: the task is another's; -2: another path leads.
if redis.call('HGET', begun, ARGV[4]) ~= ARGV[5] then return -1 end
local g = group(ARGV[1])
if ARGV[3] ~= '' and (not g or g.p ~= ARGV[3]) then return -2 end
redis.call('HSETNX', targets, ARGV[2], ARGV[1])
if redis.call('HGET', targets, ARGV[2]) ~= ARGV[1] then return 0 end
if g then
  for _, t in ipairs(g.o) do
    if t == ARGV[2] then return 1 end
  end
  g.o[#g.o + 1] = ARGV[2]
  keep(ARGV[1], g)
end
return 1
