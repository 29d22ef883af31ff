-- Gives the newest records, open or decided. KEYS as of look. ARGV: gateway, the place before which they are, and how many.
-- Answers 0, and the records, the newest first.

local CHUNK = 512

local now = clock()
local before, most = tonumber(ARGV[2]), tonumber(ARGV[3])
for _ = 1, math.ceil(redis.call('ZCOUNT', KEYS[5], '-inf', text_of(now)) / CHUNK) do
  forget(now, CHUNK)
end

local rows = {}
local line = redis.call('HGET', KEYS[2], ARGV[1]) or ''
for seq, digest in string.gmatch(line, '(%d+) (%x+) %d+ %l+;') do
  if tonumber(seq) < before then
    rows[#rows + 1] = { tonumber(seq), digest }
  end
end
local decided = redis.call('ZREVRANGEBYSCORE', KEYS[4], '(' .. ARGV[2], '-inf', 'WITHSCORES', 'LIMIT', 0, most)
for at = 1, #decided, 2 do
  rows[#rows + 1] = { tonumber(decided[at + 1]), decided[at] }
end
table.sort(rows, function(a, b) return a[1] > b[1] end)

local answer = { 0 }
for at = 1, math.min(most, #rows) do
  answer[#answer + 1] = redis.call('HGET', KEYS[3], rows[at][2])
end
return answer
