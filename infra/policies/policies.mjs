// The policies that resolve.py wrote, the cases beside them, and the question to the evaluator: may this one do that?

import { readFileSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { anonymousPrincipal, runSimulation } from '@cloud-copilot/iam-simulate'
import { parse } from 'yaml'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))

// IAM's reference, and so the evaluator, knows no resource for these, while AWS compares the machine's ARN (and names it where it refuses). They are evaluated
// as actions of which all agree that they have that resource, and which no policy here has.
const STAND_INS = {
  'states:SendTaskSuccess': 'states:UpdateStateMachine',
  'states:SendTaskFailure': 'states:DeleteStateMachine',
  'states:SendTaskHeartbeat': 'states:PublishStateMachineVersion'
}

// The evaluator takes the name of a part of the encryption context for unknown. It is evaluated as a key of the same type, which no policy here has.
const STAND_IN_KEYS = { 'kms:EncryptionContext:aws:s3:arn': 'kms:RequestAlias' }

// Keys of the bucket as crates/protocol/src/key.rs makes them, and what else cases speak of.
const EXAMPLES = {
  archive: '{backups}/qdrant/backups/qdrant_snapshot_20261123T051400Z-0badcafe.tar.zst',
  'handed over': '{backups}/qdrant/backups/qdrant_snapshot_20261123T051400Z-0badcafe.manifest.json',
  probe: '{backups}/qdrant/backups/.doctor',
  manifest: '{backups}/qdrant/manifests/20261123T051400Z.json',
  proof: '{backups}/qdrant/proofs/20261123T051400Z/20261201T000000.500Z.json',
  report: '{backups}/qdrant/drills/20261201T030000Z-20261123T051400Z/report.html',
  pointer: '{backups}/latest_qdrant_backup.manifest.json',
  marker: '{backups}/qdrant/indexing/_SUCCESS.json',
  worker: '{artifacts}/worker/0000000000000000000000000000000000000000000000000000000000000000/host-worker',
  'read-write key': 'secretsmanager:secret:{name}/qdrant-api-key-AbCdEf',
  'read-only key': 'secretsmanager:secret:{name}/qdrant-read-only-api-key-AbCdEf'
}

const GIVEN_EVERYTHING = ' given everything'
const ADMINISTRATOR_ACCESS = { Version: '2012-10-17', Statement: [{ Sid: 'Everything', Effect: 'Allow', Action: '*', Resource: '*' }] }

export const list = (value) => (value === undefined ? [] : Array.isArray(value) ? value : [value])

export function load() {
  let text
  try {
    text = readFileSync(here('resolved.json'), 'utf8')
  } catch {
    throw new Error('resolved.json is missing: run `python resolve.py` first')
  }
  for (const [name, standIn] of Object.entries({ ...STAND_INS, ...STAND_IN_KEYS })) {
    if (text.includes(`"${standIn}"`)) throw new Error(`a policy has ${standIn}, which stands in for ${name} here: choose another`)
    text = text.replaceAll(`"${name}"`, `"${standIn}"`)
  }
  const policies = JSON.parse(text)
  const files = readdirSync(here('cases')).filter((file) => file.endsWith('.yaml')).sort()
  const cases = files.flatMap((file) => expand(file, parse(readFileSync(here(`cases/${file}`), 'utf8'), { merge: true }), policies.names))
  return { policies, cases }
}

// A row of a file is as many cases as it has principals, actions and resources.
function expand(file, rows, names) {
  const known = { ...names, ...EXAMPLES }
  const cases = []
  for (const [index, row] of rows.entries()) {
    const where = `${file}, row ${index + 1}`
    const unknown = Object.keys(row).filter((key) => !['who', 'may', 'may not', 'on', 'with', 'by', 'why'].includes(key))
    if (unknown.length > 0) throw new Error(`${where}: \`${unknown}\` is not known; a row has who, may or "may not", on, with, by, why`)
    const says = ['may', 'may not'].filter((key) => key in row)
    if (!row.who || !row.on || !row.why || says.length !== 1) throw new Error(`${where}: it needs who, on, why, and one of may and "may not"`)
    if (row.may && row.by) throw new Error(`${where}: \`by\` names the statement that denies`)
    const allowed = 'may' in row
    const fill = (value) => substitute(String(value), known, where)
    for (const who of list(row.who)) {
      for (const action of list(allowed ? row.may : row['may not'])) {
        for (const on of list(row.on)) {
          const filled = ([key, value]) => [key, Array.isArray(value) ? value.map(fill) : fill(value)]
          const context = Object.fromEntries(Object.entries(row.with ?? {}).map(filled))
          cases.push({ where, who, action, on: arn(fill(on), names), shown: String(on), context, allowed, by: row.by, why: row.why })
        }
      }
    }
  }
  return cases
}

function substitute(text, names, where) {
  for (let depth = 0; depth < 3 && text.includes('{'); depth++) {
    text = text.replace(/\{([^}]+)\}/g, (whole, name) => {
      const service = /^service:(.+)$/.exec(name)
      if (service) return `${service[1]}.${names.region}.amazonaws.com`
      if (!(name in names)) throw new Error(`${where}: {${name}} is not known`)
      return names[name]
    })
  }
  return text
}

// `ec2:instance/i-1` is short for the ARN of an instance in the account and region of the example.
function arn(text, { account, region }) {
  if (text === '*' || text.startsWith('arn:')) return text
  const [service, ...rest] = text.split(':')
  return `arn:aws:${service}:${service === 'iam' ? '' : region}:${account}:${rest.join(':')}`
}

// Who asks: a role of the deployment (as it is, or were it given every right one day), an administrator of the account, the same of another account, nobody, or
// a service by its name.
function principal(who, { names, roles, managed }) {
  if (who === 'nobody') return { principal: anonymousPrincipal, identity: [], context: {} }
  if (who.endsWith('.amazonaws.com')) return { principal: who, identity: [], context: {} }
  if (who.endsWith(GIVEN_EVERYTHING)) {
    const role = principal(who.slice(0, -GIVEN_EVERYTHING.length), { names, roles, managed })
    return { ...role, identity: [{ name: who, policy: ADMINISTRATOR_ACCESS }] }
  }
  const session = (account, name) => `arn:aws:sts::${account}:assumed-role/${name}/session`
  const known = (account, name) => ({ 'aws:PrincipalArn': `arn:aws:iam::${account}:role/${name}`, 'aws:PrincipalAccount': account })
  if (who === 'administrator' || who === 'stranger') {
    const account = who === 'stranger' ? '999999999999' : names.account
    return { principal: session(account, who), identity: [{ name: who, policy: ADMINISTRATOR_ACCESS }], context: known(account, who) }
  }
  const role = roles[who]
  if (!role) throw new Error(`${who} is no role of the deployment: ${Object.keys(roles).sort().join(', ')}`)
  const inline = Object.entries(role.inline).map(([name, policy]) => ({ name: `${who}/${name}`, policy }))
  const attached = role.managed.map((name) => ({ name, policy: managed[name] }))
  return { principal: session(names.account, role.name), identity: [...inline, ...attached], context: known(names.account, role.name) }
}

// Which of the policies of buckets, keys, secrets and roles speaks of a resource.
export function resourcePolicyName(on, { names, roles }) {
  const named = /^arn:aws:iam::\d+:role\/(.+)$/.exec(on)
  const role = named && Object.keys(roles).find((name) => roles[name].name === named[1])
  if (role) return `trust:${role}`
  const secret = /^arn:aws:secretsmanager:.*:secret:[^/]+\/(.+)-.{6}$/.exec(on)
  if (secret) return `secret:${secret[1]}`
  return Object.keys(names).find((name) => names[name].startsWith('arn:') && (on === names[name] || on.startsWith(`${names[name]}/`)))
}

// A key without a policy that says so could not be used by IAM policies at all.
function keyOfSomebodyElse({ account }) {
  const thisAccount = { Effect: 'Allow', Principal: { AWS: `arn:aws:iam::${account}:root` }, Action: 'kms:*', Resource: '*' }
  return { Version: '2012-10-17', Statement: [thisAccount] }
}

function resourcePolicy(on, action, policies) {
  const name = resourcePolicyName(on, policies)
  if (!name && on.startsWith('arn:aws:kms:')) return keyOfSomebodyElse(policies.names)
  if (name?.startsWith('trust:')) return action === 'sts:AssumeRole' ? policies.roles[name.slice(6)].trust : undefined
  return name && policies.resources[name]
}

export async function evaluate(one, policies) {
  const { principal: asking, identity, context } = principal(one.who, policies)
  const service = one.who.endsWith('.amazonaws.com')
  const defaults = { 'aws:SecureTransport': 'true', 'aws:PrincipalIsAWSService': String(service), ...context }
  if (one.action === 's3:PutObject') defaults['s3:ObjectCreationOperation'] = 'true'
  const answer = await runSimulation(
    {
      request: {
        principal: asking,
        action: STAND_INS[one.action] ?? one.action,
        resource: { resource: one.on, accountId: policies.names.account },
        contextVariables: Object.fromEntries(
          Object.entries({ ...defaults, ...one.context }).map(([key, value]) => [STAND_IN_KEYS[key] ?? key, value])
        )
      },
      identityPolicies: identity,
      serviceControlPolicies: [],
      resourceControlPolicies: [],
      resourcePolicy: resourcePolicy(one.on, one.action, policies)
    },
    { simulationMode: 'Strict' }
  )
  if (answer.resultType === 'error') throw new Error(`${one.where}: the evaluator does not take ${one.action} on ${one.on}: ${JSON.stringify(answer.errors)}`)
  // An action on `*` of which the reference knows a resource is evaluated on each kind that the policies name.
  const results = answer.resultType === 'single' ? [answer.result] : answer.results
  const stated = Object.keys(one.context).map((key) => STAND_IN_KEYS[key] ?? key)
  const ignored = results.flatMap((result) => result.ignoredContextKeys ?? []).filter((key) => stated.includes(key))
  if (ignored.length > 0) throw new Error(`${one.where}: ${one.action} knows no ${ignored}, so that the case would not show what it says`)
  const statements = (which, effect) => results.flatMap(({ analysis }) => analysis[which]?.[effect] ?? [])
  return {
    allowed: answer.overallResult === 'Allowed',
    explicit: answer.overallResult === 'ExplicitlyDenied',
    denies: ['identityAnalysis', 'resourceAnalysis'].flatMap((which) => statements(which, 'denyStatements').map(({ explain }) => explain.identifier)),
    identityUses: statements('identityAnalysis', 'allowStatements'),
    resourceUses: statements('resourceAnalysis', 'allowStatements')
  }
}
