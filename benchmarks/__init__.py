"""What is measured against what; results/ holds what was recorded."""
