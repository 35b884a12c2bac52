// Evaluates the cases in cases/ against the policies of the deployment, identity and resource policies together, and fails where one comes out otherwise than
// it says, where a role has no case, where a right is used by no case that is allowed (the right is one too many, or a case is missing), and where a state
// machine calls what its role may not, or its role may what it does not call.
//
//     node evaluate.mjs            the table, and what is wrong
//     node evaluate.mjs --mutate   takes one denial, one condition, one limit after the other out of the policies; each time some case has to notice

import { evaluate, list, load, resourcePolicyName } from './policies.mjs'
import { compare } from './machines.mjs'
import { mutate } from './mutate.mjs'

const { policies, cases } = load()
if (process.argv.includes('--mutate')) {
  process.exitCode = await mutate(policies, cases)
} else {
  process.exitCode = await table()
}

async function table() {
  const wrong = []
  const used = new Set()
  const rows = []
  for (const one of cases) {
    let found
    try {
      found = await evaluate(one, policies)
    } catch (error) {
      wrong.push(error.message)
      continue
    }
    const context = Object.entries(one.context).map(([key, value]) => `${key}=${value}`)
    rows.push([one.who, one.allowed ? 'may' : 'may not', one.action, shorten(one), context.join(' '), one.by ?? '', one.why])
    const saw = found.allowed ? 'allowed' : found.explicit ? `denied by ${found.denies.join(', ')}` : 'not allowed by any statement'
    const wanted = one.allowed ? 'allowed' : one.by ? `denied by ${one.by}` : 'not allowed by any statement'
    const right = one.allowed ? found.allowed : one.by ? found.denies.includes(one.by) : !found.allowed && !found.explicit
    if (!right) wrong.push(`${one.where}: ${one.who} ${one.action} ${one.on}: ${saw}, and it should be ${wanted} (${one.why})`)
    if (found.allowed) note(used, one, found)
  }
  print(rows)
  wrong.push(...unused(used), ...compare(policies, cases))
  for (const role of Object.keys(policies.roles)) {
    if (!cases.some((one) => one.who === role)) wrong.push(`role ${role} has no case`)
  }
  const allowed = cases.filter((one) => one.allowed).length
  if (wrong.length === 0) {
    const roles = Object.keys(policies.roles).length
    console.log(`\n${cases.length} cases: ${allowed} allowed, ${cases.length - allowed} denied, as expected; every right of ${roles} roles is used by one`)
    return 0
  }
  console.error(`\n${wrong.length} of what was looked at is wrong:\n${wrong.map((line) => `  ${line}`).join('\n')}`)
  return 1
}

// Each action and each resource of each statement is a right of its own.
function note(used, one, { identityUses, resourceUses }) {
  const from = (policy, { explain }) => {
    for (const key of ['actions', 'resources']) {
      for (const each of list(explain[key]).filter((part) => part.matches)) used.add(`${policy} ${explain.identifier} ${each.action ?? each.resource}`)
    }
    used.add(`${policy} ${explain.identifier}`)
  }
  for (const statement of identityUses) {
    from(statement.policyId, statement)
    used.add(`${one.who} has ${statement.policyId}`)
  }
  for (const statement of resourceUses) from(resourcePolicyName(one.on, policies), statement)
}

function unused(used) {
  const wrong = []
  const look = (policy, document) => {
    for (const [index, statement] of document.Statement.entries()) {
      if (statement.Effect !== 'Allow') continue
      const name = statement.Sid ?? String(index + 1)
      const rights = policy.startsWith('trust:') || policy.startsWith('key:') ? [] : [...list(statement.Action), ...list(statement.Resource)]
      for (const right of rights) if (!used.has(`${policy} ${name} ${right}`)) wrong.push(`${policy}, statement ${name}: no allowed case uses ${right}`)
      if (rights.length === 0 && !used.has(`${policy} ${name}`)) wrong.push(`${policy}, statement ${name}: no allowed case uses it`)
    }
  }
  for (const [role, { trust, inline, managed }] of Object.entries(policies.roles)) {
    if (trust.Statement.length > 0) look(`trust:${role}`, trust)
    for (const [name, document] of Object.entries(inline)) look(`${role}/${name}`, document)
    for (const name of managed) if (!used.has(`${role} has ${name}`)) wrong.push(`role ${role}: no allowed case uses its managed policy ${name}`)
  }
  for (const [name, document] of Object.entries(policies.managed)) look(name, document)
  for (const [name, document] of Object.entries(policies.resources)) look(name, document)
  return wrong
}

function shorten({ on }) {
  const { names } = policies
  const bucket = ['backups', 'artifacts', 'replica'].find((name) => on.startsWith(names[name]))
  if (bucket) return bucket + on.slice(names[bucket].length)
  const key = Object.keys(names).find((name) => name.startsWith('key:') && names[name] === on)
  return key ?? on.replace(/^arn:aws:([^:]*):[^:]*:[^:]*:/, '$1:')
}

function print(rows) {
  const head = ['who', '', 'action', 'on', 'with', 'denied by', 'why']
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column].length)))
  for (const row of [head, ...rows]) console.log(row.map((cell, column) => (column === 6 ? cell : cell.padEnd(widths[column]))).join('  ').trimEnd())
}
