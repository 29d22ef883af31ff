-- Ends the sessions that a lease holds in a building, and notes that this was done. KEYS: heads, swept leases.
-- ARGV: edge and number of the lease, reason, for how many milliseconds it is noted, and a note that no other sweep has.
-- Answers how many heads were none, the clock, and of each session that ended its gateway, epoch and revision.

local all = redis.call('HGETALL', KEYS[1])
redis.call('HSET', KEYS[2], ARGV[1] .. ':' .. ARGV[2], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
local now = clock()
local answer = { 0, now }
for at = 1, #all, 2 do
  local head, bad = head_of(all[at + 1])
  answer[1] = answer[1] + bad
  if head and head.edge == ARGV[1] and head.start == ARGV[2] then
    finish(head, ARGV[3], now)
    redis.call('HSET', KEYS[1], all[at], text_of_head(head))
    answer[#answer + 1] = all[at]
    answer[#answer + 1] = head.epoch
    answer[#answer + 1] = head.rev
  end
end
return answer
