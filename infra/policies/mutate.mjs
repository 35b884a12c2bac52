// Whether the cases would notice. Each mutation weakens the policies in one place, or makes a denial too wide, as a slip of a hand would: a denial is taken
// out, a condition or one of its values, a resource is made `*`, or every action of the service is added. A mutation after which every case comes out as before
// has survived, and shows a case that is missing.

import { evaluate, list, resourcePolicyName } from './policies.mjs'

// What survives and may, with the reason: an entry that no longer survives is an error, too.
const TWO_LOCKS = "the policy of the key denies every use that is not through S3, so that the role's own limit is the second of two locks"
const NO_OTHER_ACTION = 'no other action knows the key of the condition'
const EXPLAINED = {
  'backup-machine/machine Count: every action of cloudwatch': NO_OTHER_ACTION,
  'drill-machine/machine Count: every action of cloudwatch': NO_OTHER_ACTION,
  'drill-machine/machine PassTheStagingRole: every action of iam': NO_OTHER_ACTION,
  'drill-machine/machine TagWhatIsLaunched: every action of ec2': NO_OTHER_ACTION,
  'production-host/host Count: every action of cloudwatch': NO_OTHER_ACTION,
  'watch-machine/machine Count: every action of cloudwatch': NO_OTHER_ACTION,
  'qdrant-encrypt-backups Encrypt: without StringEquals kms:ViaService': TWO_LOCKS,
  'qdrant-find-backups Decrypt: without StringEquals kms:ViaService': TWO_LOCKS,
  'qdrant-indexing EncryptTheMarker: without StringEquals kms:ViaService': TWO_LOCKS,
  'qdrant-read-replica DecryptTheSecondRegion: without StringEquals kms:ViaService': TWO_LOCKS,
  'replication/replicate EncryptCopies: without StringEquals kms:ViaService': TWO_LOCKS,
  'replication/replicate Decrypt: without StringEquals kms:ViaService': TWO_LOCKS
}

export async function mutate(policies, cases) {
  const documents = [
    ...Object.entries(policies.roles).flatMap(([role, { inline, trust }]) => [
      ...Object.keys(inline).map((name) => ({ name: `${role}/${name}`, at: ['roles', role, 'inline', name], concerns: (one) => one.who === role })),
      { name: `trust:${role}`, at: ['roles', role, 'trust'], concerns: (one) => resourcePolicyName(one.on, policies) === `trust:${role}` }
    ]),
    ...Object.keys(policies.managed).map((name) => ({ name, at: ['managed', name], concerns: (one) => policies.roles[one.who]?.managed.includes(name) })),
    ...Object.keys(policies.resources).map((name) => ({ name, at: ['resources', name], concerns: (one) => resourcePolicyName(one.on, policies) === name }))
  ]
  const survivors = []
  let count = 0
  for (const { name, at, concerns } of documents) {
    const concerned = cases.filter(concerns)
    const original = at.reduce((object, key) => object[key], policies)
    for (const [what, mutated] of mutations(original)) {
      count += 1
      if (!(await noticed(replaced(policies, at, mutated), concerned))) survivors.push(`${name} ${what}`)
    }
  }
  const unexplained = survivors.filter((survivor) => !(survivor in EXPLAINED))
  const gone = Object.keys(EXPLAINED).filter((survivor) => !survivors.includes(survivor))
  for (const survivor of survivors.filter((each) => each in EXPLAINED)) console.log(`survives: ${survivor}: ${EXPLAINED[survivor]}`)
  for (const survivor of unexplained) console.error(`survives: ${survivor}: no case notices`)
  for (const survivor of gone) console.error(`EXPLAINED has \`${survivor}\`, which does not survive: take it out`)
  const [noticedOnes, explained] = [count - survivors.length, survivors.length - unexplained.length]
  console.log(`${count} mutations: ${noticedOnes} noticed, ${explained} survive for a stated reason, ${unexplained.length} survive`)
  return unexplained.length + gone.length > 0 ? 1 : 0
}

function* mutations(document) {
  const changed = (index, statement) => ({ ...document, Statement: document.Statement.flatMap((each, at) => (at === index ? list(statement) : [each])) })
  for (const [index, statement] of document.Statement.entries()) {
    const name = statement.Sid ?? String(index + 1)
    if (statement.Effect === 'Deny') yield [`${name}: without the denial`, changed(index, [])]
    for (const [operator, keys] of Object.entries(statement.Condition ?? {})) {
      for (const [key, values] of Object.entries(keys)) {
        const { [key]: _, ...otherKeys } = keys
        const { [operator]: __, ...others } = statement.Condition
        const condition = Object.keys(otherKeys).length > 0 ? { ...others, [operator]: otherKeys } : others
        yield [`${name}: without ${operator} ${key}`, changed(index, { ...statement, Condition: condition })]
        if (list(values).length < 2) continue
        for (const value of values) {
          const rest = { ...statement.Condition, [operator]: { ...keys, [key]: values.filter((each) => each !== value) } }
          yield [`${name}: ${operator} ${key} without ${value}`, changed(index, { ...statement, Condition: rest })]
        }
      }
    }
    if (statement.Effect === 'Allow' && statement.Resource && !list(statement.Resource).includes('*')) {
      yield [`${name}: on everything`, changed(index, { ...statement, Resource: '*' })]
    }
    if (statement.Effect === 'Allow' && !statement.Principal) {
      for (const service of new Set(list(statement.Action).map((action) => action.split(':')[0]))) {
        yield [`${name}: every action of ${service}`, changed(index, { ...statement, Action: [...list(statement.Action), `${service}:*`] })]
      }
    }
    for (const part of ['Resource', 'NotResource', 'Action']) {
      if (statement.Effect !== 'Deny' || list(statement[part]).length < 2) continue
      for (const value of statement[part]) {
        yield [`${name}: ${part} without ${value}`, changed(index, { ...statement, [part]: statement[part].filter((each) => each !== value) })]
      }
    }
  }
}

async function noticed(policies, cases) {
  for (const one of cases) if ((await evaluate(one, policies)).allowed !== one.allowed) return true
  return false
}

function replaced(object, [key, ...rest], value) {
  return { ...object, [key]: rest.length > 0 ? replaced(object[key], rest, value) : value }
}
