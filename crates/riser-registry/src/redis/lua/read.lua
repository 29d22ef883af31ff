-- Gives what is known of a gateway. KEYS: heads, values. ARGV: gateway. Answers 0, the head, and the values by path.
-- A transaction would do the same, but Redis refuses those when it is full, reads as well.

return { 0, redis.call('HGET', KEYS[1], ARGV[1]), redis.call('HGETALL', KEYS[2]) }
