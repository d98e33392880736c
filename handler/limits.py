"""Every limit on what strangers may send and on how long it may take; a test compares the files that must agree with it."""

MAX_BODY = 10_485_760  # bytes of a request: config.properties, nginx.conf and the page say the same
MAX_PIXELS = 50_000_000  # of one photo
MAX_INSTANCES = 32  # photos in one request

# A request is answered within 15 seconds: it waits at most WAIT_SECONDS, and its batch takes at most RESPONSE_SECONDS
WAIT_SECONDS = 6.0  # what may have waited longer is refused
READ_SECONDS = 1.5  # for reading all photos of a batch; the rest of it is refused
FETCH_SECONDS = 2.5  # for one photo at an address
RESPONSE_SECONDS = 5  # then TorchServe kills the worker (responseTimeout in model-config.yaml)
QUEUE = 100  # requests that wait (jobQueueSize in model-config.yaml); TorchServe refuses more
