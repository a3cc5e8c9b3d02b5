-- KEYS[1]: treeferry:. ARGV: a job that walked for a mirror and is over, the word for walks of a part of a source, for how
-- long (s) it is known how such a walk ended. A rename of a directory makes one: thousands a day are no jobs to be listed.
local P, id = KEYS[1], ARGV[1]
local noted = redis.call('HGET', P .. 'mirror-walks', id) or ''
redis.call('HDEL', P .. 'mirror-walks', id)
if string.sub(noted, -#ARGV[2] - 1) ~= ' ' .. ARGV[2] then return end
redis.call('ZREM', P .. 'jobs', id)
local p = P .. '{' .. id .. '}:'
for _, n in ipairs(redis.call('SMEMBERS', p .. 'nodes')) do redis.call('EXPIRE', p .. 'node:' .. n, ARGV[3]) end
for _, k in ipairs({'job', 'counters', 'failures', 'changes', 'notices', 'nodes', 'told', 'sizes', 'largest_files',
  'slowest_files', 'largest_dirs', 'longest_tasks', 'history', 'left'}) do
  redis.call('EXPIRE', p .. k, ARGV[3])
end
