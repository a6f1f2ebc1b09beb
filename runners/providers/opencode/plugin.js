// What opencode's ACP cannot be told, and does not tell: runnerd starts it with this plugin, and with no other.
//
// In the directory $RUNNERD_SESSIONS stands, for each session that is asked something, ID.json: {system, past, params}.
// `system` takes the place of the CLI's own system prompt, `past` are messages ({role, parts}) that stand before those of
// the session, `params` what the API is asked with (temperature, topP, maxOutputTokens). In return ID.told says how the
// turn went: {failure: {message, statusCode?, next?}, finish: the reason why the model ended, text: all that it said,
// message: the id of the message with that}.

import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"

const GUARD = "\u200b" // stands before a text that the CLI would else take for a command
const place = (name) => join(process.env.RUNNERD_SESSIONS, name)
const told = (id) => JSON.parse(readFileSync(place(`${id}.json`), "utf8"))
const isTold = (id) => existsSync(place(`${id}.json`))
const soFar = (id) => (existsSync(place(`${id}.told`)) ? JSON.parse(readFileSync(place(`${id}.told`), "utf8")) : {})
const tell = (id, what) => writeFileSync(place(`${id}.told`), JSON.stringify({ ...soFar(id), ...what }))

// A retry is told of without the status that the API answered with. Each call of a model names its session.
const answered = new Map()
const fetched = globalThis.fetch
async function watched(input, init) {
  const headers = new Headers(init?.headers ?? input?.headers)
  const id = headers.get("x-session-affinity") ?? headers.get("x-opencode-session")
  answered.delete(id)
  const response = await fetched(input, init)
  if (id && !response.ok) answered.set(id, response.status)
  return response
}
globalThis.fetch = Object.assign(watched, fetched)

function asMessage({ role, parts }, index, like) {
  const id = `msg_${index}`
  const own = { id, sessionID: like.sessionID, role, time: { created: 0, completed: 0 } }
  const model = { providerID: like.model?.providerID, modelID: like.model?.modelID }
  return {
    info: role === "user" ? { ...like, ...own } : { ...own, ...model, parentID: id, finish: "stop" },
    parts: parts.map((part, at) => ({ ...part, id: `prt_${index}_${at}`, messageID: id, sessionID: like.sessionID })),
  }
}

export const Runnerd = async ({ client }) => ({
  event: async ({ event }) => {
    const { sessionID, status, error, part } = event.properties ?? {}
    if (event.type === "session.status" && status.type === "retry") {
      // It would try again, for ever and in silence, and say what it has said once more.
      tell(sessionID, { failure: { ...status, statusCode: answered.get(sessionID) } })
      await client.session.abort({ path: { id: sessionID } })
    }
    if (event.type === "session.error") answered.delete(sessionID)
    if (event.type === "session.error" && sessionID && error?.name !== "MessageAbortedError") {
      tell(sessionID, { failure: { message: error?.data?.message, statusCode: error?.data?.statusCode } })
    }
    if (event.type === "message.part.updated" && part.type === "step-finish") {
      tell(part.sessionID, { finish: part.reason })
    }
  },

  "experimental.chat.system.transform": async ({ sessionID }, output) => {
    output.system.length = 0
    if (isTold(sessionID) && told(sessionID).system) output.system.push(told(sessionID).system)
  },

  "experimental.chat.messages.transform": async (_, output) => {
    const [first] = output.messages
    if (output.messages.at(-1).info.role !== "user") {
      // An answer that broke off is no end for the CLI: it would ask again, and go on behind what it has said.
      tell(first.info.sessionID, { finish: "unknown" })
      throw new Error("the answer broke off")
    }
    for (const { parts } of output.messages) {
      if (parts.length > 1 && parts[0].text === GUARD) parts.shift()
    }
    const past = isTold(first.info.sessionID) ? told(first.info.sessionID).past : []
    output.messages.unshift(...past.map((said, index) => asMessage(said, index, first.info)))
  },

  // Pieces of a text may come to runnerd behind the end of their turn (1.18.3): this is not behind it.
  "experimental.text.complete": async ({ sessionID, messageID }, { text }) => {
    tell(sessionID, { text: (soFar(sessionID).text ?? "") + text, message: messageID })
  },

  "chat.params": async ({ sessionID }, output) => {
    // The last step before the API is called. Where nothing is told this throws, and nothing is asked: so does runnerd
    // have all of it loaded before the first chat.
    Object.assign(output, told(sessionID).params)
  },
})
