-- ARGV: how long (s) what tells of a job that is over stays.
stay(ARGV[1])
