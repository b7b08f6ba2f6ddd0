"""The Open Inference Protocol v2 over gRPC for aiaas-sdk: `grpc://` addresses, and `aiaas serve --grpc-port`."""
