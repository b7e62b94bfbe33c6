"""Wiring: MCP and the command line around the tools."""
