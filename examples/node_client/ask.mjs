// Asks a rag-serving gateway: node ask.mjs [--stream] [--address HOST:PORT] QUESTION
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

// The contract is read from its source: the folder that holds protos/ is the import root.
const root = process.env.RAG_PROTO_ROOT ?? fileURLToPath(new URL("../..", import.meta.url));
const definition = protoLoader.loadSync("protos/rag/v1/gateway.proto", {
  includeDirs: [root],
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { rag } = grpc.loadPackageDefinition(definition);

const { values, positionals } = parseArgs({
  options: {
    address: { type: "string", default: "127.0.0.1:50050" },
    stream: { type: "boolean", default: false },
  },
  allowPositionals: true,
});
const client = new rag.v1.GatewayService(values.address, grpc.credentials.createInsecure());
const request = { question: positionals.join(" "), options: { retrieval: { top_k: 3 } } };
const callOptions = { deadline: Date.now() + 60_000 };

/** One message in, one message out. */
function ask() {
  return new Promise((resolve, reject) => {
    client.Answer(request, callOptions, (error, response) => (error ? reject(error) : resolve(response)));
  });
}

/** Events as they come; the last one holds the definitive answer and replaces the deltas. */
async function streamed() {
  let last;
  for await (const message of client.StreamAnswer(request, callOptions)) {
    if (message.event === "stage") console.log(`stage: ${message.stage.timing.stage}`);
    if (message.event === "delta") console.log(`delta: ${message.delta.text}`);
    if (message.event === "final") last = message.final;
  }
  return last;
}

try {
  const { answer, provenance } = await (values.stream ? streamed() : ask());
  console.log(`answer: ${answer.text} (${answer.finish_reason})`);
  for (const { posterior, retrieved } of answer.citations) {
    console.log(`cited: ${posterior.toFixed(3)} ${retrieved.passage.source}: ${retrieved.passage.text}`);
  }
  console.log(`generator: ${provenance?.generator}`);
} catch (error) {
  console.error(`${grpc.status[error.code] ?? "ERROR"}: ${error.details ?? error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
