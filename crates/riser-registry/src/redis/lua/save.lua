-- Gives all that is kept of one gateway, as it is at one moment. KEYS: heads, values, records. ARGV: gateway.
-- Answers whether the head was none, the clock, the head, the values by path, and the records by digest.

local text = redis.call('HGET', KEYS[1], ARGV[1])
local _, bad = head_of(text)
return { bad, clock(), text, redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3]) }
