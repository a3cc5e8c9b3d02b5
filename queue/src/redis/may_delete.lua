-- ARGV: how many deletions the job may do, whether to take one. 1: one is left.
local done = tonumber(redis.call('GET', P .. 'deletions') or '0')
if done >= tonumber(ARGV[1]) then return 0 end
if ARGV[2] == '1' then redis.call('INCR', P .. 'deletions') end
return 1
