-- Forgets an ended lease whose index is empty. KEYS: leases, the index. ARGV: the lease. Answers whether it was none.

local lease, bad = lease_of(redis.call('HGET', KEYS[1], ARGV[1]), clock())
if lease and lease.ended and redis.call('ZCARD', KEYS[2]) == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return { bad }
