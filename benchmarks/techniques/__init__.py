"""One file for each technique that makes a step cheap: what it saves, measured against doing without it."""
