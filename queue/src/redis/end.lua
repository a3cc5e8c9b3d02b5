-- ARGV: state, why, now (ms). Ends a job before its time; 1 if it was running.
if redis.call('HGET', job, 'state') ~= 'running' then return 0 end
close(ARGV[3], ARGV[1], ARGV[2])
return 1
