"""The ports that a scan of level 2 looks at, besides those of the protocols.

What usually listens there is IANA's registration or the program's own default.
"""

from __future__ import annotations

DANGEROUS: dict[int, str] = {
    20: "ftp-data", 21: "ftp", 23: "telnet", 25: "smtp", 53: "dns", 69: "tftp", 79: "finger", 110: "pop3",
    111: "rpcbind", 113: "ident", 119: "nntp", 135: "msrpc", 137: "netbios", 139: "netbios", 143: "imap", 161: "snmp",
    389: "ldap", 427: "slp", 445: "smb", 465: "smtps", 512: "rexec", 513: "rlogin", 514: "rsh", 515: "lpd", 523: "db2",
    548: "afp", 554: "rtsp", 587: "submission", 623: "ipmi", 631: "ipp", 636: "ldaps", 873: "rsync", 902: "vmware",
    993: "imaps", 995: "pop3s", 1080: "socks", 1099: "java-rmi", 1433: "mssql", 1521: "oracle", 1723: "pptp",
    1883: "mqtt", 2049: "nfs", 2121: "ftp", 2181: "zookeeper", 2379: "etcd", 2380: "etcd", 3128: "squid",
    3268: "ldap", 3306: "mysql", 3389: "rdp", 3690: "svn", 4040: "spark", 4369: "epmd", 4444: "shell",
    4786: "cisco-smi", 4848: "glassfish", 5000: "registry",
    5432: "postgresql", 5555: "adb", 5601: "kibana", 5672: "amqp", 5900: "vnc",
    5901: "vnc", 5984: "couchdb", 5985: "winrm", 5986: "winrm", 6000: "x11", 6379: "redis", 6443: "kubernetes",
    6666: "irc", 6667: "irc", 7001: "weblogic", 7077: "spark", 7474: "neo4j", 8009: "ajp", 8086: "influxdb",
    8161: "activemq", 8200: "vault", 8500: "consul", 8888: "jupyter", 9001: "supervisor", 9042: "cassandra",
    9092: "kafka", 9200: "elasticsearch", 9300: "elasticsearch", 9418: "git", 10000: "webmin", 10250: "kubelet",
    10255: "kubelet", 11211: "memcached", 15672: "rabbitmq", 25565: "minecraft", 27017: "mongodb", 27018: "mongodb",
    28017: "mongodb", 50000: "jenkins-agent", 50070: "hadoop",
}  # fmt: skip
"""Port -> what is usually behind it; open to strangers it is a mistake more often than not."""

SERVICES: dict[int, str] = DANGEROUS | {
    22: "ssh", 80: "http", 443: "https", 2375: "docker", 2376: "docker", 3000: "grafana", 6060: "pprof", 8080: "http",
    8443: "https", 9090: "prometheus", 9100: "node-exporter", 9443: "https",
}  # fmt: skip
