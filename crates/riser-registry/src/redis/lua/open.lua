-- Gives the records of open commands. KEYS: open commands, records. ARGV: gateway, the place after which they come, and how
-- many. Answers 0, and the records in the order of their places.

local answer = { 0 }
local line = redis.call('HGET', KEYS[1], ARGV[1]) or ''
local after, most = tonumber(ARGV[2]), tonumber(ARGV[3])
for seq, digest in string.gmatch(line, '(%d+) (%x+) %d+ %l+;') do
  if #answer > most then
    break
  elseif tonumber(seq) > after then
    answer[#answer + 1] = redis.call('HGET', KEYS[2], digest)
  end
end
return answer
