"""One HTTP exchange: connections, TLS, proxies, replies and their bodies. It knows no model and no document."""
