"""Everything that knows diffusers: what a pipeline is, how its networks are asked, how its scheduler steps."""
