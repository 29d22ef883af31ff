-- Takes a building out of a lease's index, unless it was put there again. KEYS: the index. ARGV: the building, and the
-- mark that it had. Answers 0.

if redis.call('ZSCORE', KEYS[1], ARGV[1]) == ARGV[2] then
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return { 0 }
