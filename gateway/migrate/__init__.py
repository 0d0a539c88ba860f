"""Other gateways' configurations, turned into ours. Imports the configuration and nothing else of the gateway."""
