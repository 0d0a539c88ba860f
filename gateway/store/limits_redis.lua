-- One round of claims, the end of a holder, or the reconciling of a budget: gateway/policy/lease.py in Lua, step by step.
-- KEYS[1] prefix of all keys. ARGV: what to do, and its arguments.

local prefix = KEYS[1]
local HOLDERS = prefix .. 'holders'
local SLOTS = 64
local BACK_POINTS = 8
local LONGEST_LEASE_S = 600
local KEEP_S = 40 * 86400
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

local function int(x) return string.format('%.0f', x) end

local function load_pool(name)
  local pool = {name = name, held = 0, lost = 0, charges = {}, key = prefix .. 'pool:' .. name}
  local flat = redis.call('HGETALL', pool.key)
  for i = 1, #flat, 2 do
    local field, value = flat[i], tonumber(flat[i + 1])
    if field == 'held' then pool.held = value
    elseif field == 'lost' then pool.lost = value
    elseif field == 'window' then pool.window = value
    else pool.charges[tonumber(field)] = value end
  end
  return pool
end

local function store_pool(pool)
  local flat = {'held', int(pool.held), 'lost', int(pool.lost), 'window', tostring(pool.window)}
  for slot, units in pairs(pool.charges) do
    flat[#flat + 1] = int(slot)
    flat[#flat + 1] = int(units)
  end
  redis.call('DEL', pool.key)
  redis.call('HSET', pool.key, unpack(flat))
  if pool.held <= 0 and not string.find(pool.name, ':total:$') then redis.call('EXPIRE', pool.key, KEEP_S) end
end

local function charge(pool, units)
  if units > 0 and pool.window ~= 0 then
    local slot = -1
    if pool.window > 0 then slot = math.floor(now * SLOTS / pool.window) end
    pool.charges[slot] = (pool.charges[slot] or 0) + units
  end
end

local function release(pool)
  if pool.window > 0 then
    local last = math.floor(now * SLOTS / pool.window)
    local ahead = 0
    for slot, units in pairs(pool.charges) do
      if slot > last then ahead = ahead + units end
      if slot > last or slot < last - SLOTS then pool.charges[slot] = nil end
    end
    if ahead > 0 then pool.charges[last] = (pool.charges[last] or 0) + ahead end
  end
end

local function used(pool)
  local sum = 0
  for _, units in pairs(pool.charges) do sum = sum + units end
  return sum
end

local function load_share(key, name)
  local text = redis.call('HGET', key, name)
  if not text then return {granted = 0, used = 0, returned = 0} end
  local granted, spent, returned = string.match(text, '^(%d+):(%d+):(%d+)$')
  return {granted = tonumber(granted), used = tonumber(spent), returned = tonumber(returned)}
end

local function balance(share) return share.granted - share.used - share.returned end

local function finish(holder)
  local key = prefix .. 'share:' .. holder
  for _, name in ipairs(redis.call('HKEYS', key)) do
    local left = balance(load_share(key, name))
    if left > 0 then
      local pool = load_pool(name)
      if pool.window then
        pool.held = pool.held - left
        if pool.window == -1 then pool.lost = pool.lost + left else charge(pool, left) end
        store_pool(pool)
      end
    end
  end
  redis.call('DEL', key)
  redis.call('ZREM', HOLDERS, holder)
end

local function take(key, claim, alone)
  local pool, share = load_pool(claim.name), load_share(key, claim.name)
  pool.window = claim.window
  release(pool)
  local before = math.max(balance(share), 0)
  charge(pool, math.max(claim.used - share.used, 0))
  share.used = math.max(share.used, claim.used)
  share.returned = math.max(share.returned, claim.returned)
  local held = math.max(balance(share), 0)
  pool.held = pool.held + held - before
  local remaining = claim.amount - pool.held - pool.lost - used(pool)
  local wanted = claim.target - held
  if wanted > 0 and remaining > 0 then
    local needed = math.max(claim.need - held, 0)
    local part = remaining
    if not alone then part = math.floor(remaining / 2) end
    local more = math.min(wanted, remaining, math.max(needed, part, 1))
    if needed <= remaining then
      share.granted = share.granted + more + held - balance(share)
      pool.held = pool.held + more
      remaining = remaining - more
    end
  end
  store_pool(pool)
  redis.call('HSET', key, claim.name, int(share.granted) .. ':' .. int(share.used) .. ':' .. int(share.returned))
  local answer = {int(share.granted), int(math.max(remaining, 0)), int(pool.held)}
  if pool.window > 0 then
    local slots, total, mark = {}, 0, 1
    for slot in pairs(pool.charges) do slots[#slots + 1] = slot end
    table.sort(slots)
    local step = math.max(math.floor(claim.amount / BACK_POINTS), 1)
    for i, slot in ipairs(slots) do
      total = total + pool.charges[slot]
      if total >= mark or i == #slots then
        answer[#answer + 1] = tostring(math.max((slot + 1 + SLOTS) * pool.window / SLOTS - now, 0))
        answer[#answer + 1] = int(total)
        mark = (math.floor(total / step) + 1) * step
      end
    end
  end
  return answer
end

local function claims_from(first)
  local claims = {}
  for i = first, #ARGV, 7 do
    claims[#claims + 1] = {
      name = ARGV[i], amount = tonumber(ARGV[i + 1]), window = tonumber(ARGV[i + 2]), used = tonumber(ARGV[i + 3]),
      returned = tonumber(ARGV[i + 4]), target = tonumber(ARGV[i + 5]), need = tonumber(ARGV[i + 6]),
    }
  end
  return claims
end

local function take_all(holder, claims, alone)
  local key, grants = prefix .. 'share:' .. holder, {}
  for i, claim in ipairs(claims) do grants[i] = take(key, claim, alone) end
  if #claims > 0 then redis.call('EXPIRE', key, KEEP_S) end
  return grants
end

local what, holder = ARGV[1], ARGV[2]

if what == 'settle' then
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', HOLDERS, '-inf', tostring(now))) do finish(gone) end
  local longest = string.format('%.6f', now + LONGEST_LEASE_S)  -- what is beyond it was before the clock was set back
  for _, far in ipairs(redis.call('ZRANGEBYSCORE', HOLDERS, '(' .. longest, '+inf')) do
    redis.call('ZADD', HOLDERS, longest, far)
  end
  if ARGV[4] == '0' and not redis.call('ZSCORE', HOLDERS, holder) then return {} end
  redis.call('ZADD', HOLDERS, string.format('%.6f', now + tonumber(ARGV[3])), holder)
  local holders = redis.call('ZCARD', HOLDERS)
  local answer = take_all(holder, claims_from(5), holders == 1)
  table.insert(answer, 1, holders)
  return answer
end

if what == 'leave' then
  if redis.call('ZSCORE', HOLDERS, holder) then
    local claims, key = claims_from(3), prefix .. 'share:' .. holder
    for _, claim in ipairs(claims) do
      local share = load_share(key, claim.name)
      claim.returned = math.max(claim.returned, share.granted - claim.used - claim.target)
      claim.target, claim.need = 0, 0
    end
    take_all(holder, claims, false)
    finish(holder)
  end
  return {}
end

-- reconcile NAME SPENT
local pool = load_pool(ARGV[2])
if pool.held > 0 or pool.lost == 0 or not pool.window then return 0 end
local back = math.min(pool.lost, math.max(used(pool) + pool.lost - tonumber(ARGV[3]), 0))
pool.charges[-1] = (pool.charges[-1] or 0) + pool.lost - back
pool.lost = 0
store_pool(pool)
return back
