-- Stores a change of a gateway's state: the rule of riser-core's `State::admits` and `State::apply`, on a hash.
-- KEYS: heads, values. ARGV: gateway, epoch, revision, whether the change is full, most paths, most bytes, how many
-- devices are described, the description or an empty text, how many marks there are, each with its path and `1` for a
-- device that came back, and then for each path that is set, in their order: the path, and one of `0` (fresh), `1` (stale),
-- `-` (deleted, fresh), `+` (deleted, stale) with the value right behind it.
-- A value is stored as `0` or `1` and its text.
-- Answers whether the head was none, the clock, and: 0 and when it was stored; 1 and the newer epoch; 2 when the session has
-- ended; 3 and the version that stands there; 4 when nothing does; 5 over the paths; 6 over the bytes.

local STORED, NEWER, OVER, GAP, NOTHING, PATHS, BYTES = 0, 1, 2, 3, 4, 5, 6
-- Fewer arguments than a call may have.
local CHUNK = 1000

local gateway, values = ARGV[1], KEYS[2]
local epoch, rev, full = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local devices, marks = ARGV[8], tonumber(ARGV[9])
local sets = 10 + 2 * marks
local head, bad = head_of(redis.call('HGET', KEYS[1], gateway))
local now = clock()

if not head then
  return { bad, now, NOTHING }
elseif head.epoch > epoch then
  return { bad, now, NEWER, head.epoch }
elseif head.epoch == epoch and head.edge == '-' then
  return { bad, now, OVER }
elseif head.epoch == epoch and head.rev == rev then
  return { bad, now, STORED, head.at }
elseif head.epoch ~= epoch or head.rev + 1 ~= rev then
  return { bad, now, GAP, head.epoch, head.rev }
end

local function is_set(what)
  local mark = string.byte(what)
  return mark == 48 or mark == 49
end

-- Whether the limits admit it, and what there will be.
local paths, bytes = head.paths, head.bytes
if full then
  paths, bytes = 0, 0
end
for at = sets, #ARGV, 2 do
  local path, what = ARGV[at], ARGV[at + 1]
  if not full then
    local old = redis.call('HSTRLEN', values, path)
    if old > 0 then
      paths, bytes = paths - 1, bytes - #path - old + 1
    end
  end
  if is_set(what) then
    paths, bytes = paths + 1, bytes + #path + #what - 1
  end
end
if math.max(paths, tonumber(ARGV[7])) > tonumber(ARGV[5]) then
  return { bad, now, PATHS }
elseif bytes > tonumber(ARGV[6]) then
  return { bad, now, BYTES }
end

-- What changes: by path the new value, or false.
local new = {}
local stale = head.stale

if full then
  local kept = devices == '' and redis.call('HGET', values, '')
  redis.call('UNLINK', values)
  if kept then
    redis.call('HSET', values, '', kept)
  end
  stale = 0
end

-- Calls a function with each path above one, outermost first.
local function above(path, call)
  local slash = string.find(path, '/', 1, true)
  while slash do
    call(string.sub(path, 1, slash - 1))
    slash = string.find(path, '/', slash + 1, true)
  end
end

-- The last mark that concerns a value decides: one of its device or of what is above that, or one below it that came back.
local function mark_all()
  local last, below, up = {}, {}, {}
  for number = 1, marks do
    local path = ARGV[8 + 2 * number]
    up[number] = ARGV[9 + 2 * number] == '1'
    last[path] = number
    if up[number] then
      above(path, function(outer) below[outer] = number end)
    end
  end
  local all = redis.call('HGETALL', values)
  for at = 1, #all, 2 do
    local path, value = all[at], all[at + 1]
    if path ~= '' then
      local mark = math.max(last[path] or 0, below[path] or 0)
      above(path, function(outer) mark = math.max(mark, last[outer] or 0) end)
      local was = string.byte(value) == 49
      if mark > 0 and was == up[mark] then
        new[path] = (was and '0' or '1') .. string.sub(value, 2)
        stale = stale + (was and -1 or 1)
      end
    end
  end
end
if marks > 0 and not full then
  mark_all()
end

-- The value of a path that is stale, or nothing.
local function stale_at(path)
  if stale <= 0 then
    return nil
  end
  local value = new[path]
  if value == nil then
    value = redis.call('HGET', values, path)
  end
  return value and string.byte(value) == 49 and value
end

local function freshen(path)
  local value = stale_at(path)
  if value then
    new[path] = '0' .. string.sub(value, 2)
    stale = stale - 1
  end
end

for at = sets, #ARGV, 2 do
  local path, what = ARGV[at], ARGV[at + 1]
  local mark = string.byte(what)
  if stale > 0 and (mark == 48 or mark == 45) then
    above(path, freshen)
  end
  if stale_at(path) then
    stale = stale - 1
  end
  if is_set(what) then
    new[path] = what
    if mark == 49 then
      stale = stale + 1
    end
  else
    new[path] = false
  end
end
if devices ~= '' then
  new[''] = devices
end

local put, gone = {}, {}
for path, value in pairs(new) do
  if value then
    put[#put + 1] = path
    put[#put + 1] = value
  else
    gone[#gone + 1] = path
  end
end
for at = 1, #put, CHUNK do
  redis.call('HSET', values, unpack(put, at, math.min(at + CHUNK - 1, #put)))
end
for at = 1, #gone, CHUNK do
  redis.call('HDEL', values, unpack(gone, at, math.min(at + CHUNK - 1, #gone)))
end

head.rev, head.at, head.paths, head.bytes, head.stale = rev, now, paths, bytes, stale
head.missing = head.missing and not full
redis.call('HSET', KEYS[1], gateway, text_of_head(head))
return { bad, now, STORED, now }
