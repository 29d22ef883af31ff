-- Forgets a stream if it is at this address. KEYS: streams, their ends, those at the address. ARGV: its number, the address
-- and a blank. Answers 0.

local stream = redis.call('HGET', KEYS[1], ARGV[1])
if stream and string.sub(stream, 1, #ARGV[2]) == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('ZREM', KEYS[3], ARGV[1])
end
return { 0 }
