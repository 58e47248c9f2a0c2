"""A real service process for the life-cycle tests: answers after 0.3 s."""

import asyncio

from protos.rag.v1 import generator_pb2, generator_pb2_grpc
from serving.config import ServiceConfig, load_config, settings_config
from serving.server import Service, run, serve


class SlowConfig(ServiceConfig):
    """Of the slow service."""

    model_config = settings_config("RAG_SLOW_")


class Slow(generator_pb2_grpc.GeneratorServiceServicer):
    """Sleeps, then answers."""

    async def Generate(self, request, context):
        await asyncio.sleep(0.3)
        return generator_pb2.GenerateResponse()


def add(server):
    generator_pb2_grpc.add_GeneratorServiceServicer_to_server(Slow(), server)


if __name__ == "__main__":
    config = load_config(SlowConfig)
    run(serve(config, name="slow", services=[Service("rag.v1.GeneratorService", add)]))
