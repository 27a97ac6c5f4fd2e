"""The library behind the commands: it never prints, never exits, and knows no flags."""
