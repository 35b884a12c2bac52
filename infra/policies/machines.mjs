// Whether the roles of the state machines are those of the files in state-machines/: each call that a file makes is the subject of an allowed case, and each
// right of the role is called for.

import { readFileSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { list } from './policies.mjs'

const FOLDER = fileURLToPath(new URL('../../state-machines/', import.meta.url))
const ROLES = { 'restore-drill': 'drill-machine' }
// What another call brings with it: RunInstances passes the role of the instance and tags it.
const WITH = { 'ec2:RunInstances': ['iam:PassRole', 'ec2:CreateTags'] }
const SERVICES = { sfn: 'states' }

export function compare({ roles, managed, names }, cases) {
  const wrong = []
  const files = readdirSync(FOLDER).filter((file) => file.endsWith('.asl.json'))
  const seen = new Set()
  for (const file of files) {
    const machine = file.slice(0, -'.asl.json'.length)
    const role = ROLES[machine] ?? `${machine}-machine`
    seen.add(role)
    if (!roles[role]) {
      wrong.push(`${file}: there is no role ${role}`)
      continue
    }
    const calls = [...tasks(JSON.parse(readFileSync(FOLDER + file, 'utf8')))].map(call)
    for (const { action, on } of calls) {
      const isShown = (one) => one.allowed && one.who === role && one.action === action && (!on || one.on.endsWith(`:${names.name}-${on}`))
      if (!cases.some(isShown)) wrong.push(`${file} calls ${action}${on ? ` of ${on}` : ''}, and no case allows it to ${role}`)
    }
    const called = new Set(calls.flatMap(({ action }) => [action, ...(WITH[action] ?? [])]))
    const notifies = roles[role].managed.filter((name) => name.endsWith('-notify-alarms'))
    const documents = [...Object.values(roles[role].inline), ...notifies.map((name) => managed[name])]
    for (const right of documents.flatMap((document) => document.Statement.flatMap((statement) => list(statement.Action)))) {
      if (!called.has(right) && !right.startsWith('kms:')) wrong.push(`role ${role} has ${right}, which ${file} does not call`)
    }
  }
  const stray = Object.keys(roles).filter((name) => name.endsWith('-machine') && !seen.has(name))
  wrong.push(...stray.map((role) => `role ${role} is of no machine in state-machines/`))
  return wrong
}

function* tasks(value) {
  if (value === null || typeof value !== 'object') return
  if (value.Type === 'Task') yield value
  for (const inner of Object.values(value)) yield* tasks(inner)
}

// The IAM action of a task, and for a function its name without the deployment's.
function call({ Resource, Parameters }) {
  const [service, operation] = Resource.replace('arn:aws:states:::', '').replace(/^aws-sdk:/, '').split(/[:.]/)
  if (service === 'lambda') {
    const name = Parameters.FunctionName.replace(/^\$\{(.+)Function\}$/, '$1').replace(/(?<!^)([A-Z])/g, '-$1').toLowerCase()
    return { action: 'lambda:InvokeFunction', on: name }
  }
  return { action: `${SERVICES[service] ?? service}:${operation[0].toUpperCase()}${operation.slice(1)}` }
}
