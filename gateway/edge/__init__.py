"""HTTP in and out: sockets, endpoints, SSE, error to status. The only room that imports quart and hypercorn."""
