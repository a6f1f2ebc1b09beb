"""Stand-ins for the vendors' model APIs on 127.0.0.1: what a real CLI is run against where no model may be asked."""
