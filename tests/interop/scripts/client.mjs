// Scenarios for the published JS client, bundled by esbuild. `client.mjs SCENARIO CONFIG`; prints one JSON object.
import { createHash } from 'node:crypto';
import { inference, parseStatus, TaskStatusRunning } from '@inferencesh/sdk';

const [scenario, text] = process.argv.slice(2);
const config = JSON.parse(text);
const connect = (extra = {}) => inference({ apiKey: config.key, baseUrl: config.base_url, ...extra });
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');
const failureOf = async (make) => {
  try {
    await make();
    return null;
  } catch (error) {
    return { type: error.constructor.name, text: error.message, statusCode: error.statusCode ?? null };
  }
};

const scenarios = {
  async run() {
    const updates = [];
    const done = await connect().run(
      { app: config.app, input: { text: 'hello interop', steps: 5 } },
      { onUpdate: (task) => updates.push(task) },
    );
    return { updates, done };
  },

  async run_without_waiting() {
    const client = connect();
    const started = await client.run({ app: config.app, input: { text: 'later' } }, { wait: false });
    const done = await client.tasks.watch(started, {}).done;
    return { started, done };
  },

  async polling() {
    const updates = [];
    const client = connect({ stream: false, pollIntervalMs: 100 });
    const done = await client.run(
      { app: config.app, input: { text: 'polled', steps: 8 } },
      { onUpdate: (task) => updates.push(task) },
    );
    return { updates, done };
  },

  async cancel() {
    const client = connect();
    const seen = [];
    let id = null;
    const error = await failureOf(() =>
      client.run(
        { app: config.app, function: 'slow', input: { seconds: 60 } },
        {
          onUpdate: (task) => {
            id = task.id;
            seen.push(parseStatus(task.status));
            if (task.status === TaskStatusRunning && seen.filter((s) => s === TaskStatusRunning).length === 1) {
              client.cancel(id);
            }
          },
        },
      ),
    );
    await client.cancel(id); // a finished task: succeeds and changes nothing
    const final = (await client.tasks.get(id)).data;
    return { seen, error, final: final.status };
  },

  async failing() {
    const updates = [];
    const request = { app: config.app, function: 'fail', input: { message: 'no cake today' } };
    const streamed = await failureOf(() => connect().run(request, { onUpdate: (task) => updates.push(task) }));
    const polled = await failureOf(() => connect({ stream: false, pollIntervalMs: 100 }).run(request));
    return { streamed, polled, last: updates.at(-1) };
  },

  async refused() {
    const client = connect();
    const { app } = config;
    return {
      unknown_app: await failureOf(() => client.run({ app: 'local/there-is-none', input: {} })),
      wrong_input: await failureOf(() => client.run({ app, input: { text: ['no', 'text'] } })),
      unknown_task: await failureOf(() => client.tasks.get('task_01hzzzzzzzzzzzzzzzzzzzzzzz')),
      bad_key: await failureOf(() => connect({ apiKey: 'inf_no' }).tasks.get('x')),
    };
  },

  async upload() {
    const client = connect();
    const raw = Uint8Array.from({ length: 2048 }, (_, i) => i % 256);
    const base64 = Buffer.from(raw).toString('base64');
    const uploads = [
      await client.files.upload(new Blob([raw], { type: 'application/x-raw' }), { filename: 'raw.bin' }),
      await client.files.upload(base64, { filename: 'cake.png' }),
      await client.files.upload('data:text/plain,a%20data%20uri'),
    ];
    const files = [...uploads.map((file) => file.uri), new Blob([raw]), base64, 'data:text/plain;base64,Y2FrZQ=='];
    const done = await client.run({ app: config.app, function: 'digest', input: { files } });
    const expected = [raw, raw, 'a data uri', raw, raw, 'cake'].map(sha256);
    const listed = (await client.files.list({ limit: 50 })).data;
    const first = (await client.files.get(uploads[0].id)).data;
    await client.files.delete(uploads[0].id);
    const gone = await failureOf(() => client.files.get(uploads[0].id));
    return { uploads, output: done.output, expected, listed, first, gone };
  },

  async sessions() {
    const client = connect();
    const request = { app: config.app, function: 'count', input: { by: 1 } };
    const first = await client.run({ ...request, session: 'new', session_timeout: 120 });
    const id = first.session_id;
    const second = await client.run({ ...request, input: { by: 10 }, session: id });
    const info = (await client.sessions.get(id)).data;
    const kept = (await client.sessions.keepalive(id)).data;
    const listed = (await client.sessions.list()).data.map((item) => item.id);
    await client.sessions.end(id);
    const ended = await failureOf(() => client.run({ ...request, session: id }));
    return { id, first, second, info, kept, listed, ended };
  },

  async records() {
    const client = connect();
    const done = await client.run({ app: config.app, input: { text: 'recorded' } });
    const status = (await client.tasks.get(done.id)).data;
    const logs = (await client.tasks.getLogs(done.id)).data;
    const timings = (await client.tasks.getTimings(done.id)).data;
    const listed = (await client.tasks.list({ limit: 100 })).data;
    const apps = (await client.apps.list({})).data;
    const app = (await client.apps.getByName(config.app)).data;
    const versions = (await client.apps.listVersions(app.id, {})).data;
    await client.tasks.delete(done.id);
    const gone = await failureOf(() => client.tasks.get(done.id));
    return { done, status, logs, timings, listed, apps, app, versions, gone };
  },

  // EventSource: the browser's way, here through the client's own helper.
  async event_source() {
    const client = connect();
    const task = await client.run({ app: config.app, input: { text: 'sse', steps: 3 } }, { wait: false });
    const source = await client.tasks.stream(task.id);
    const seen = await new Promise((resolve, reject) => {
      const updates = [];
      source.onmessage = (event) => {
        updates.push(JSON.parse(event.data));
        if (updates.at(-1).status >= 10) {
          source.close();
          resolve(updates);
        }
      };
      setTimeout(() => reject(new Error('no terminal event')), 20000).unref();
    });
    return { statuses: seen.map((update) => update.status), last: seen.at(-1) };
  },
};

console.log(JSON.stringify(await scenarios[scenario]()));
process.exit(0);
