from ivcap_flows.cli import main

main()
