"""Models behind a web server: a scheduler for the engine, and an endpoint in OpenAI's form."""
