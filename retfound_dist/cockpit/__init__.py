"""Know before, see during, find after: the plan and its recipe check, lists, pages and cards of runs."""
