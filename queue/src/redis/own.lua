-- ARGV: group, inode of the target. 1: the group has taken the inode; 0: another has.
redis.call('HSETNX', targets, ARGV[2], ARGV[1])
if redis.call('HGET', targets, ARGV[2]) ~= ARGV[1] then return 0 end
local g = group(ARGV[1])
if g then
  for _, t in ipairs(g.o) do
    if t == ARGV[2] then return 1 end
  end
  g.o[#g.o + 1] = ARGV[2]
  keep(ARGV[1], g)
end
return 1
