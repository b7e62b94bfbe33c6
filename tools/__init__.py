"""What an assistant can do: plain typed functions that know no protocol."""
