-- Forgets a command if it is decided. KEYS: records, decided ones, their expiry. ARGV: digest. Answers 0.

local bytes = redis.call('HSTRLEN', KEYS[1], ARGV[1])
if redis.call('ZREM', KEYS[2], ARGV[1]) == 1 then
  redis.call('HINCRBY', KEYS[1], 'b', -bytes)
  redis.call('ZREM', KEYS[3], ARGV[1])
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return { 0 }
