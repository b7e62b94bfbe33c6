"""A chat assistant that sees tissue: LangChain's agent, any OpenAI-compatible model, tissuetalk's tools over MCP.

usage: pip install 'tissuetalk[agent]'; python examples/agent.py FOLDER MODEL "How many nuclei are in tnbc.jpg? It has 0.25 µm per pixel."
The model's server comes from OPENAI_BASE_URL and OPENAI_API_KEY, as LangChain reads them.
"""

import asyncio
import sys
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langchain_openai import ChatOpenAI
from mcp import Client, StdioServerParameters, stdio_client
from mcp_types import Tool


def as_langchain(client: Client, tool: Tool) -> BaseTool:
    """An MCP tool as LangChain's: the model reads the text, the structured answer rides along as the artifact."""

    async def call(**given: Any) -> tuple[str, Any]:
        result = await client.call_tool(tool.name, given)
        text = "\n".join(block.text for block in result.content if block.type == "text")
        if result.is_error:
            raise ToolException(text)  # begins with a code and names the next call
        return text, result.structured_content

    said = {"name": tool.name, "description": tool.description or "", "args_schema": tool.input_schema}
    return StructuredTool(
        **said, coroutine=call, response_format="content_and_artifact", handle_tool_error=True
    )


async def assistant(model: BaseChatModel, client: Client) -> Any:
    """An agent that was told what the server tells every assistant."""
    tools = [as_langchain(client, tool) for tool in (await client.list_tools()).tools]
    return create_agent(model, tools, system_prompt=client.instructions)


async def main(folder: str, model: str, question: str) -> None:
    async with Client(
        stdio_client(StdioServerParameters(command="tissuetalk", args=["serve", "--root", folder]))
    ) as client:
        agent = await assistant(ChatOpenAI(model=model, temperature=0), client)
        print((await agent.ainvoke({"messages": [("user", question)]}))["messages"][-1].text)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
